"""Findings made readable: terminal, figures, HTML with a viewer, Markdown, and the audit folder."""
