package main
import "github.com/spf13/cobra"
func newInspect(c *common) *cobra.Command { return &cobra.Command{Use:"inspect"} }
func newModule(c *common) *cobra.Command { return &cobra.Command{Use:"module"} }
