"""Functions of one value."""

from __future__ import annotations

from planish.ir.ops import row

from ..call import Call
from ..registry import emits

_DIRECT = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "selu": "Selu",
    "hardswish": "HardSwish",
    "exp": "Exp",
    "log": "Log",
    "erf": "Erf",
    "abs": "Abs",
    "neg": "Neg",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
}


@emits(*_DIRECT)
def direct(call: Call) -> str:
    """Write what ONNX has under a name of its own."""
    return call.op(_DIRECT[row(call.node).name], call.operand("self"))


@emits("silu")
def silu(call: Call) -> str:
    """Write x * sigmoid(x)."""
    x = call.value("self")
    return call.op("Mul", x, call.op("Sigmoid", x))


@emits("gelu")
def gelu(call: Call) -> str:
    """Write Gelu (opset 20), before that its formula with erf or tanh."""
    x = call.value("self")
    if call.opset >= 20:
        return call.op("Gelu", x, approximate=call["approximate"])
    if call["approximate"] == "tanh":
        cube = call.op("Mul", call.op("Mul", x, x), x)
        inner = call.op("Add", x, call.op("Mul", cube, call.number(0.044715)))
        bell = call.op("Tanh", call.op("Mul", inner, call.number(0.7978845608028654)))
    else:
        bell = call.op("Erf", call.op("Div", x, call.number(1.4142135623730951)))
    product = call.op("Mul", x, call.op("Add", bell, call.number(1.0)))
    return call.op("Mul", product, call.number(0.5))


@emits("mish")
def mish(call: Call) -> str:
    """Write Mish (opset 18), before that x * tanh(softplus(x))."""
    x = call.value("self")
    if call.opset >= 18:
        return call.op("Mish", x)
    return call.op("Mul", x, call.op("Tanh", call.op("Softplus", x)))


@emits("elu")
def elu(call: Call) -> str:
    """Write Elu, with torch's factors of input and result where they are not one."""
    if call["input_scale"] != 1:
        raise call.refused("with an input scale has no ONNX form")
    result = call.op("Elu", call.value("self"), alpha=float(call["alpha"]))
    return result if call["scale"] == 1 else call.op("Mul", result, call.number(call["scale"]))


@emits("celu")
def celu(call: Call) -> str:
    """Write Celu."""
    return call.op("Celu", call.value("self"), alpha=float(call["alpha"]))


@emits("leaky_relu")
def leaky_relu(call: Call) -> str:
    """Write LeakyRelu."""
    return call.op("LeakyRelu", call.value("self"), alpha=float(call["negative_slope"]))


@emits("hardsigmoid")
def hardsigmoid(call: Call) -> str:
    """Write HardSigmoid with torch's slope."""
    return call.op("HardSigmoid", call.value("self"), alpha=1 / 6, beta=0.5)


@emits("softplus")
def softplus(call: Call) -> str:
    """Write Softplus; beta as factors. Beyond torch's threshold both are the identity."""
    x, beta = call.value("self"), call["beta"]
    if beta == 1:
        return call.op("Softplus", x)
    inner = call.op("Softplus", call.op("Mul", x, call.number(beta)))
    return call.op("Div", inner, call.number(beta))


@emits("log_sigmoid")
def log_sigmoid(call: Call) -> str:
    """Write -softplus(-x), which doesn't underflow."""
    return call.op("Neg", call.op("Softplus", call.op("Neg", call.value("self"))))


@emits("expm1")
def expm1(call: Call) -> str:
    """Write exp(x) - 1."""
    return call.op("Sub", call.op("Exp", call.value("self")), call.number(1.0))


@emits("log1p")
def log1p(call: Call) -> str:
    """Write log(x + 1)."""
    return call.op("Log", call.op("Add", call.value("self"), call.number(1.0)))


@emits("rsqrt")
def rsqrt(call: Call) -> str:
    """Write 1 / sqrt(x)."""
    return call.op("Reciprocal", call.op("Sqrt", call.value("self")))


@emits("trunc")
def trunc(call: Call) -> str:
    """Write sign(x) * floor(abs(x))."""
    x = call.value("self")
    return call.op("Mul", call.op("Sign", x), call.op("Floor", call.op("Abs", x)))


@emits("pow")
def power(call: Call) -> str:
    """Write Pow with a number as exponent."""
    return call.op("Pow", call.operand("self"), call.operand("exponent"))
