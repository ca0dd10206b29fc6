"""``minillm bench gpu``: throughput, limits and kernels on one GPU, beside vLLM and transformers in the same run."""
