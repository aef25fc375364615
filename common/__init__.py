"""What every service stands on. Knows the mesh, storage and money; knows no payment word."""
