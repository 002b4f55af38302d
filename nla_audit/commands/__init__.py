"""The commands behind ``nla-audit``: parse, call one function, print."""
