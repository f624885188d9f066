"""Networks and soft quantizers written from the papers' formulas."""
