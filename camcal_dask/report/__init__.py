"""Pages and pictures from statistics and products; nothing here measures or judges."""
