"""The verbs of settlement that change something, a file each."""
