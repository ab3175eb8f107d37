"""What readers of tables share: rows of separated text, columns by their names, captions in cells."""
