package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"allotment/api"
)

// newBackup adds what concerns the backup of the whole box to the command that runs steps of modules.
func newBackup(f *deviceFlags) *cobra.Command {
	cmd := newTask(f, api.Backup, "Run a step of a module's backup")
	cmd.Long = `Run a step of a module's backup; without a name, list what there is. The commands below are for the backup of the whole box.`
	cmd.AddCommand(newBackupStatus(f), newBackupTarget(f),
		newBackupAsk(f, "now", "Back up now", (*api.Client).BackupNow),
		newBackupAsk(f, "prove", "Restore the newest backup beside the running system and prove it", (*api.Client).BackupProve),
		newBackupAsk(f, "stop", "Back up no more; what is at the target stays there", (*api.Client).RemoveBackupTarget),
		newBackupSheet(f), newBackupList(f), newBackupRestore(f))
	return cmd
}

func newBackupStatus(f *deviceFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the backup does",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			s, err := c.Backup(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return printBackup(cmd.OutOrStdout(), s)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printBackup(w io.Writer, s api.BackupStatus) error {
	fmt.Fprintln(w, printable(s.Text))
	return table(w, func(row func(...any)) {
		if s.Target != nil {
			row("  target", s.Target.Kind, s.Target.Address+s.Target.Label, s.Target.Folder)
		}
		if s.Total > 0 {
			row("  done", fmt.Sprintf("%.1f of %.1f MB", float64(s.Done)/1e6, float64(s.Total)/1e6))
		}
		if s.Good != nil {
			row("  last good backup", clockTime(s.Good.Time), fmt.Sprintf("%d files, %.1f MB", s.Good.Files, float64(s.Good.Bytes)/1e6))
		}
		if s.Last != nil && !s.Last.OK {
			row("  last backup failed", clockTime(s.Last.Time), s.Last.Problem)
		}
		if p := s.Proof; p != nil {
			row("  last proof", clockTime(p.Time), p.Problem)
			for _, m := range p.Modules {
				row("    "+m.Module, m.Steps, m.Problem)
			}
		}
		if !s.Next.IsZero() {
			row("  next backup", clockTime(s.Next))
		}
		if r := s.Restore; r != nil {
			row("  restore", r.Stage, clockTime(r.Time), r.Problem)
		}
	})
}

func newBackupAsk(f *deviceFlags, use, short string, ask func(*api.Client, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE:  f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error { return ask(c, cmd.Context()) }),
	}
}

// secretVariable is where commands take a password from, which is not to be seen among arguments.
const secretVariable = "ALLOT_BACKUP_SECRET"

// targetFlags are the fields of a target.
func targetFlags(cmd *cobra.Command) *api.BackupTarget {
	var t api.BackupTarget
	fl := cmd.Flags()
	fl.StringVar(&t.Address, "address", "", "URL of s3, rest and box, host name of sftp")
	fl.StringVar(&t.Folder, "folder", "", "folder; for s3 with the bucket before it")
	fl.StringVar(&t.User, "user", "", "user, or key id")
	fl.StringVar(&t.HostKey, "host-key", "", "public key of the sftp server (without it that of the first time counts), or fingerprint of the box's own authority")
	fl.StringVar(&t.Label, "label", "", "label of the usb disk's file system")
	return &t
}

func newBackupTarget(f *deviceFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "target s3|sftp|box|rest|usb",
		Short: "Say where backups go, and get the sheet to print",
		Long:  "Say where backups go, and get the sheet to print. The password is taken from " + secretVariable + ".",
		Example: "  " + secretVariable + "=... allot device backup target s3 --address https://s3.example.org --folder bucket/box --user KEYID\n" +
			"  allot device backup target usb --label BACKUP",
		Args: one("s3, sftp, box, rest or usb"),
	}
	t := targetFlags(cmd)
	cmd.RunE = f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
		t.Kind, t.Secret = args[0], os.Getenv(secretVariable)
		sheet, err := c.SetBackupTarget(cmd.Context(), *t)
		if err != nil {
			return err
		}
		return printSheet(cmd.OutOrStdout(), sheet)
	})
	return cmd
}

func printSheet(w io.Writer, s api.BackupSheet) error {
	fmt.Fprintf(w, "Without this key nobody can restore the backups. Print it, and keep it away from the box.\n\n  %s\n\n", s.Key)
	return table(w, func(row func(...any)) {
		row("  target", s.Target.Kind)
		for _, x := range [][2]string{{"address", s.Target.Address}, {"folder", s.Target.Folder}, {"user", s.Target.User},
			{"host key", s.Target.HostKey}, {"disk", s.Target.Label}} {
			if x[1] != "" {
				row("  "+x[0], x[1])
			}
		}
	})
}

func newBackupSheet(f *deviceFlags) *cobra.Command {
	var printed bool
	cmd := &cobra.Command{
		Use:   "sheet",
		Short: "Show the sheet with the key",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			if printed {
				return c.BackupPrinted(cmd.Context())
			}
			sheet, err := c.BackupSheet(cmd.Context())
			if err != nil {
				return err
			}
			return printSheet(cmd.OutOrStdout(), sheet)
		}),
	}
	cmd.Flags().BoolVar(&printed, "printed", false, "show nothing, but say that it is on paper")
	return cmd
}

func newBackupList(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the backups at the target",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			all, err := c.BackupSnapshots(cmd.Context())
			if err != nil {
				return err
			}
			return table(cmd.OutOrStdout(), func(row func(...any)) {
				for _, s := range all {
					row(s.ID, s.Time.Local().Format(time.DateTime), s.Host)
				}
			})
		}),
	}
}

func newBackupRestore(f *deviceFlags) *cobra.Command {
	var key, snapshot string
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore s3|sftp|box|rest|usb",
		Short: "Replace all that the box has by a backup; the box restarts",
		Args:  one("s3, sftp, box, rest or usb"),
	}
	t := targetFlags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&key, "key", "", "the key on the sheet")
	fl.StringVar(&snapshot, "snapshot", "", "id of a backup (default: the newest)")
	fl.BoolVar(&yes, "replace", false, "yes, all that the box has may be replaced")
	cmd.RunE = f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
		if strings.TrimSpace(key) == "" {
			return usage(cmd, errors.New("want the key that is on the sheet"))
		}
		t.Kind, t.Secret = args[0], os.Getenv(secretVariable)
		return c.RestoreBackup(cmd.Context(), api.BackupRestoreRequest{Target: *t, Key: key, Snapshot: snapshot, Confirm: yes})
	})
	return cmd
}

func newExport(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "export",
		Short:   "Write all of the organisation's data in open formats to standard output, as a tar file",
		Example: "  allot device export > everything.tar",
		Args:    cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			if err := c.Export(cmd.Context(), cmd.OutOrStdout()); err != nil {
				return err
			}
			s, err := c.Backup(cmd.Context())
			if err == nil && s.Export != nil && !s.Export.OK {
				err = fmt.Errorf("not everything is in the export: %s", s.Export.Problem)
			}
			return err
		}),
	}
}
