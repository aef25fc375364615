#!/bin/sh
# Prints the first Python that paymesh can run on, or says what is missing and what to type.
# In shell, because it is what runs before there is a Python to rely on.
for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
  if path=$(command -v "$candidate") &&
    "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "$path"
    exit 0
  fi
done
echo "setup: Python 3.11 or newer is missing.
On Debian 12 or newer, as root: apt-get install python3 python3-venv
Or name one that is elsewhere: make setup PYTHON=/path/to/python3" >&2
exit 1
