"""Evaluators measure how close samples are to the data; any stage that has samples can use one."""
