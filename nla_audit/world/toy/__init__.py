"""The toy language: small enough to train a target model and an NLA from nothing in minutes.

Its documents are drawn from five facts, so that what an activation can hold is known, and with it
what an explanation leaves out.
"""
