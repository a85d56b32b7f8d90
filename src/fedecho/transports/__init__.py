"""Transports carry tasks to clients and bring events back."""
