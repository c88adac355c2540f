"""Stages that make records, and chains of stages."""
