CREATE TABLE orders (order_id text PRIMARY KEY);
CREATE TABLE heard (order_id text NOT NULL);
CREATE TABLE shipped (order_id text PRIMARY KEY);
