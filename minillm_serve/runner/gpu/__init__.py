"""The runner on a GPU: static buffers, CUDA graphs of decode steps, one packed copy a step, memory profile."""
