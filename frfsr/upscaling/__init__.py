"""The engine: any photo and any references in, the photo four times as large out."""
