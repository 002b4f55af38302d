"""Three worlds of which the truth is known, against which the measurements are tested."""
