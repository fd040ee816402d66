"""A model and what it is tried on -> a report, files and pictures: what evaluate.py does, a protocol a file."""
