"""One grading a file; see :mod:`nla_audit.train.grading`."""
