def find_islands(graph, skipped): return {}
