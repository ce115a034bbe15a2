"""What is wrong with a store or a server, nearly full or blocked: facts are gathered in one place and judged in another."""
