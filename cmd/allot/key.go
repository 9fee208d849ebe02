package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"allotment/image/secureboot"
)

func newKey(*common) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make the keys that sign boot files"}
	cmd.AddCommand(newKeyNew())
	return cmd
}

func newKeyNew() *cobra.Command {
	var ifMissing bool
	cmd := &cobra.Command{
		Use:   "new DIR",
		Short: "Make Secure Boot keys (PK, KEK, db) in a new folder",
		Long: `Make Secure Boot keys (PK, KEK, db) in a new folder.

Whoever has these files can sign what your machines boot: keep the folder private and have a copy elsewhere. Keys that are
there already are never overwritten.`,
		Args: one("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			if ifMissing {
				_, err := os.Stat(filepath.Join(dir, "db.key"))
				if err == nil || !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			if err := secureboot.NewKeys(dir, time.Now().UTC().Truncate(time.Second)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made keys in %s\n", dir)
			return nil
		},
	}
	cmd.Flags().BoolVar(&ifMissing, "if-missing", false, "do nothing when the folder has keys")
	return cmd
}
