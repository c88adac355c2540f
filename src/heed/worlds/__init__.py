"""Small worlds whose truth is known: a town of readable English, and a table in closed form."""
