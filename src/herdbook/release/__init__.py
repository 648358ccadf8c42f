"""The release: the folder that holds exactly what is uploaded."""
