"""qexport: networks trained with soft quantizers become verified integer inference."""
