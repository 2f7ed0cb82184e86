"""Values that cross package borders: prompts, cameras, renders, progress. numpy only."""
