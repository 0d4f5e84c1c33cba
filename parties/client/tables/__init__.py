"""Tables as people have them - pandas, polars, pyarrow, numpy, lists of rows, CSV, Parquet - as columns of integers."""
