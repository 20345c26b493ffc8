"""What a recipe's task does with a plan: one module a task."""
