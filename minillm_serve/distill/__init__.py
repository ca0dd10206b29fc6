"""Train a draft head for a target model, on text that the target wrote: ``python -m minillm_serve.distill``."""
