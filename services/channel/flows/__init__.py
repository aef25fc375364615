"""One state-changing verb a file; each is intent → call → outcome, with no transaction open."""
