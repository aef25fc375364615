"""The contracts of `channel`: what banks and third parties are asked, and what they said."""
