"""PostgreSQL: pools, schemas with roles of their own, migrations, named queries, failures."""
