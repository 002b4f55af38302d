"""Hidden codes: bits in how a text is written, and readers that do or do not read them.

The planted truth of the probe for steganography, its power included.
"""
