//! Copying parts of trees as `cp -a --reflink=auto` does.
