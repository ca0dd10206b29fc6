"""What readers read: its prose, its spelling and its terms. For the project's own checks; no notebook imports it."""
