"""What the tests draw and compare with; needs the extra ``testing`` (Hypothesis)."""
