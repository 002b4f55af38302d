"""nla-audit: what do the explanations of a natural language autoencoder really carry?"""

__version__ = "0.1.0"
