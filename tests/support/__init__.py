"""What tests share: typed and reviewed like product code."""
