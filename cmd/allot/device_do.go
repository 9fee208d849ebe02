package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"allotment/api"
	"allotment/image"
)

func newModuleSwitch(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "module on|off NAME",
		Short: "Switch a module on or off, for good",
		Args:  cobra.ExactArgs(2),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			if args[0] != "on" && args[0] != "off" {
				return usage(cmd, fmt.Errorf("want on or off, not %q", args[0]))
			}
			return c.Switch(cmd.Context(), args[1], args[0] == "on")
		}),
	}
}

func newRestart(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "restart MODULE.SERVICE",
		Short: "End a service and start it again",
		Args:  one("MODULE.SERVICE"),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			module, service := serviceName(args[0])
			if service == "" {
				return usage(cmd, fmt.Errorf("want MODULE.SERVICE, not %q", args[0]))
			}
			return c.Restart(cmd.Context(), module, service)
		}),
	}
}

func newSettings(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "settings [MODULE] [KEY=VALUE...]",
		Short: "Show or change the settings of the organisation, or of a module",
		Example: "  allot device settings\n  allot device settings domain=garden.example\n" +
			"  allot device settings chat archive=30",
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			module := ""
			if len(args) > 0 && !strings.Contains(args[0], "=") {
				module, args = args[0], args[1:]
			}
			s, err := c.Settings(cmd.Context(), module)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return printSettings(cmd.OutOrStdout(), s)
			}
			values, err := parseSettings(s.Form, args)
			if err != nil {
				return usage(cmd, err)
			}
			return c.SetSettings(cmd.Context(), module, values)
		}),
	}
}

func printSettings(w io.Writer, s api.Settings) error {
	return table(w, func(row func(...any)) {
		for _, field := range s.Form {
			row(fmt.Sprintf("%s=%v", field.Name, s.Values[field.Name]), field.Title)
		}
	})
}

// parseSettings gives each value the type that its field has. What fits beyond that is the box's to say.
func parseSettings(form []image.Setting, args []string) (map[string]any, error) {
	values := map[string]any{}
	for _, arg := range args {
		key, text, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("want KEY=VALUE, not %q", arg)
		}
		values[key] = text
		i := slices.IndexFunc(form, func(s image.Setting) bool { return s.Name == key })
		if i < 0 {
			continue
		}
		var err error
		switch form[i].Type {
		case "integer":
			values[key], err = strconv.Atoi(text)
		case "boolean":
			values[key], err = strconv.ParseBool(text)
		}
		if err != nil {
			return nil, fmt.Errorf("%s is no %s: %q", key, form[i].Type, text)
		}
	}
	return values, nil
}

// newTask makes the command of one kind of tasks.
func newTask(f *deviceFlags, kind, short string) *cobra.Command {
	return &cobra.Command{
		Use:   kind + " [all | MODULE[.NAME]...]",
		Short: short + "; without a name, list what there is",
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			all, err := c.Tasks(cmd.Context())
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(t api.Task) bool { return t.Kind != kind })
			if len(args) == 0 {
				return table(cmd.OutOrStdout(), func(row func(...any)) {
					for _, t := range all {
						row(t.Module+"."+t.Name, t.Title, t.Help)
					}
				})
			}
			chosen, err := choose(all, kind, args)
			if err != nil {
				return err
			}
			return runTasks(cmd.Context(), c, chosen, cmd.OutOrStdout())
		}),
	}
}

// choose finds the tasks that arguments name.
func choose(all []api.Task, kind string, args []string) ([]api.Task, error) {
	var chosen []api.Task
	for _, arg := range args {
		module, name := serviceName(arg)
		before := len(chosen)
		for _, t := range all {
			if arg == "all" || t.Module == module && (name == "" || t.Name == name) {
				chosen = append(chosen, t)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("the box has no %s %q", kind, arg)
		}
	}
	return chosen, nil
}

// runTasks runs one task after the other, and fails in the end if any of them did.
func runTasks(ctx context.Context, c *api.Client, tasks []api.Task, w io.Writer) error {
	failures := 0
	for _, t := range tasks {
		ok, err := runTask(ctx, c, t, w)
		if err != nil {
			return err
		}
		if !ok {
			failures++
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d failed", failures, len(tasks))
	}
	return nil
}

func runTask(ctx context.Context, c *api.Client, t api.Task, w io.Writer) (ok bool, err error) {
	for p, err := range c.RunTask(ctx, t) {
		switch {
		case err != nil:
			return false, err
		case !p.Done:
			continue
		case p.Step > 0:
			fmt.Fprintf(w, "  %s %s (%.1f s)%s\n", verdict(p.OK), p.Title, p.Seconds, because(p))
			continue
		}
		ok = p.OK
		fmt.Fprintf(w, "%s %s %s.%s (%.1f s)%s\n", verdict(p.OK), t.Kind, t.Module, t.Name, p.Seconds, because(p))
	}
	return ok, nil
}

func verdict(ok bool) string {
	if ok {
		return "ok    "
	}
	return "FAILED"
}

// because is why something failed, with the last that it printed.
func because(p api.Progress) string {
	if p.OK {
		return ""
	}
	text := ": " + p.Problem
	if out := strings.TrimSpace(p.Output); out != "" {
		text += "\n    " + strings.ReplaceAll(out, "\n", "\n    ")
	}
	return printable(text)
}

func newProvision(f *deviceFlags) *cobra.Command {
	var p api.Provision
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "provision",
		Short: "Make accounts user01, user02, ... and print their passwords, this once",
		Long: `Make accounts user01, user02, ... and print their passwords. They are kept nowhere else; an account that is there
already gets a new password.`,
		Args: cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			accounts := []api.Account{}
			for a, err := range c.Provision(cmd.Context(), p) {
				if err != nil {
					return err
				}
				accounts = append(accounts, a)
				if !asJSON {
					fmt.Fprintln(cmd.OutOrStdout(), a.Name, a.Password)
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), accounts)
			}
			return nil
		}),
	}
	cmd.Flags().IntVar(&p.Users, "users", 40, "how many")
	cmd.Flags().StringVar(&p.Group, "group", "members", "group that they join")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, when all are made")
	return cmd
}

func newForward(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "forward MODULE PORT [LOCAL]",
		Short:   "Reach a module's TCP port at 127.0.0.1:LOCAL, until Ctrl-C; developer images only",
		Example: "  allot device forward directory 389 10389",
		Args:    cobra.RangeArgs(2, 3),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			port, err := strconv.Atoi(args[1])
			if err != nil {
				return usage(cmd, fmt.Errorf("%q is no port", args[1]))
			}
			local := "0"
			if len(args) == 3 {
				local = args[2]
			}
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", local))
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s leads to port %d of module %s; Ctrl-C ends it.\n", l.Addr(), port, args[0])
			return forward(cmd.Context(), c, l, args[0], port, cmd.ErrOrStderr())
		}),
	}
}

// forward joins each connection to one of the module, until ctx ends.
func forward(ctx context.Context, c *api.Client, l net.Listener, module string, port int, complain io.Writer) error {
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		near, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer near.Close()
			far, err := c.DialModule(ctx, module, port)
			if err != nil {
				fmt.Fprintln(complain, err)
				return
			}
			defer far.Close()
			go func() {
				io.Copy(far, near)
				far.Close()
			}()
			io.Copy(near, far)
		}()
	}
}

func newExec(f *deviceFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "exec MODULE.SERVICE COMMAND [ARGUMENT...]",
		Short:   "Run a command in a service's container; developer images only",
		Example: "  allot device exec chat.prosody /usr/bin/prosodyctl check config",
		Args:    cobra.MinimumNArgs(2),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			module, service := serviceName(args[0])
			for out, err := range c.Run(cmd.Context(), module, service, args[1:]...) {
				switch {
				case err != nil:
					return err
				case out.Exit != nil && *out.Exit != 0:
					return fmt.Errorf("the command ended with status %d", *out.Exit)
				case out.Exit != nil:
					return nil
				}
				fmt.Fprint(cmd.OutOrStdout(), out.Text)
			}
			return errors.New("the box does not say how the command ended")
		}),
	}
	cmd.Flags().SetInterspersed(false) // what follows is the command's own
	return cmd
}
