// A client of the container runtime interface, as small as one pod needs: cri SOCKET VERB [ARGUMENT]...
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	socket, verb, args := os.Args[1], os.Args[2], os.Args[3:]
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	conn, err := grpc.DialContext(ctx, "unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithBlock())
	die(err)
	cri := v1.NewRuntimeServiceClient(conn)
	host := &v1.NamespaceOption{Network: v1.NamespaceMode_NODE, Pid: v1.NamespaceMode_CONTAINER}
	if os.Getenv("SHARE_PIDS") != "" {
		host.Pid = v1.NamespaceMode_POD
	}
	pod := &v1.PodSandboxConfig{
		Metadata: &v1.PodSandboxMetadata{Name: "pod", Uid: "uid", Namespace: "default"},
		Hostname: "pod", LogDirectory: os.Getenv("LOGS"),
		Linux: &v1.LinuxPodSandboxConfig{SecurityContext: &v1.LinuxSandboxSecurityContext{NamespaceOptions: host}},
	}
	switch verb {
	case "run-pod": // HANDLER -> id
		answer, err := cri.RunPodSandbox(ctx, &v1.RunPodSandboxRequest{Config: pod, RuntimeHandler: args[0]})
		die(err)
		fmt.Println(answer.PodSandboxId)
	case "create": // POD NAME IMAGE SCRIPT -> id
		config := &v1.ContainerConfig{
			Metadata: &v1.ContainerMetadata{Name: args[1]}, Image: &v1.ImageSpec{Image: args[2]},
			Command: []string{"sh", "-c", args[3]}, LogPath: args[1] + ".log",
			Linux: &v1.LinuxContainerConfig{SecurityContext: &v1.LinuxContainerSecurityContext{NamespaceOptions: host}},
		}
		answer, err := cri.CreateContainer(ctx, &v1.CreateContainerRequest{PodSandboxId: args[0], Config: config, SandboxConfig: pod})
		die(err)
		fmt.Println(answer.ContainerId)
	case "start":
		_, err := cri.StartContainer(ctx, &v1.StartContainerRequest{ContainerId: args[0]})
		die(err)
	case "exec": // CONTAINER CMD... -> its output
		answer, err := cri.ExecSync(ctx, &v1.ExecSyncRequest{ContainerId: args[0], Cmd: args[1:], Timeout: 30})
		die(err)
		os.Stdout.Write(answer.Stdout)
		os.Stderr.Write(answer.Stderr)
		os.Exit(int(answer.ExitCode))
	case "state": // CONTAINER -> state and exit code
		answer, err := cri.ContainerStatus(ctx, &v1.ContainerStatusRequest{ContainerId: args[0]})
		die(err)
		fmt.Println(answer.Status.State, answer.Status.ExitCode)
	case "stop":
		_, err := cri.StopContainer(ctx, &v1.StopContainerRequest{ContainerId: args[0], Timeout: 2})
		die(err)
	case "remove":
		_, err := cri.RemoveContainer(ctx, &v1.RemoveContainerRequest{ContainerId: args[0]})
		die(err)
	case "stop-pod":
		_, err := cri.StopPodSandbox(ctx, &v1.StopPodSandboxRequest{PodSandboxId: args[0]})
		die(err)
	case "remove-pod":
		_, err := cri.RemovePodSandbox(ctx, &v1.RemovePodSandboxRequest{PodSandboxId: args[0]})
		die(err)
	default:
		die(fmt.Errorf("no such verb: %s", verb))
	}
}
