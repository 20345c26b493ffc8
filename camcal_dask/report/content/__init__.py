"""What a report shows: subject, quantities, data, layout."""
