"""CUDA: kernels as CUDA C text, run by NVIDIA's compiler and driver or by the emulator."""
