"""UnionPay online (全渠道), back transactions: gateway, transactions, notifications."""
