"""Language models that write text for us, behind one interface (:mod:`nla_audit.llm.interface`)."""
