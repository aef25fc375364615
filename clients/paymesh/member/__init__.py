"""The contracts of `member`: merchants, users, keys and bank cards."""
