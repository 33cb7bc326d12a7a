"""One module for each revision of the schema. Views are not migrated: they are made anew after every upgrade."""
