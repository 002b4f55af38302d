"""What transforms are, what they promise, and how they are applied to the texts of a table."""
