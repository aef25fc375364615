"""The verbs of trade that change something, a file each."""
