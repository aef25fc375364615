"""What happens to every call besides its work, one concern a file.

The same chain holds whichever way a call travels (`common.mesh.chain` puts it together).
"""
