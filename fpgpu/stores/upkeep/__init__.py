"""Care of whole stores: change their form, check and mend them, remove from and merge them."""
