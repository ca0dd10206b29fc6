"""What the notebooks import: public checks, a simulated server, plots, the offline model and the notebook builder.

The engine (``minillm_serve``) never imports this package.
"""
